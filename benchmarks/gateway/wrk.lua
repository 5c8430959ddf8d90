-- wrk -s wrk.lua URL -- HEADERS DELAY_FROM DELAY_TO MARKS BODY...
--
-- Posts BODY (a file; several take turns) with the header lines in the file HEADERS. With a delay (ms) each connection
-- pauses that long, at random, before each request. With MARKS > 0 each answer must hold "data:" that many times.
-- The last line printed is the result as JSON.
local threads = {}

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
  wrk.method, wrk.body = "POST", read(args[5])
  local from, to, marks = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  if to > 0 then
    math.randomseed(os.time())
    function delay() return math.random(from, to) end
  end
  incomplete = 0
  if marks > 0 then
    function response(_, _, body)
      local _, count = body:gsub("data:", "")
      if count ~= marks then incomplete = incomplete + 1 end
    end
  end
  if #args > 5 then
    local requests, turn = {}, 0
    for number = 5, #args do
      table.insert(requests, wrk.format("POST", nil, nil, read(args[number])))
    end
    function request()
      turn = turn % #requests + 1
      return requests[turn]
    end
  end
end

function done(summary, latency)
  local missing = 0
  for _, thread in ipairs(threads) do missing = missing + (thread:get("incomplete") or 0) end
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%.6f,"bytes":%d,"p50_ms":%.4f,"p90_ms":%.4f,"p99_ms":%.4f,"mean_ms":%.4f,' ..
    '"non_2xx":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"incomplete":%d}',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, latency.mean / 1e3, errors.status, errors.connect, errors.read, errors.write,
    errors.timeout, missing))
end

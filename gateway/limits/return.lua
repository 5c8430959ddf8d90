-- Takes back requests that were granted in advance and not made.
-- KEYS[1] the window; ARGV[1] how many; ARGV[2] the second in which they count.
local at = tonumber(ARGV[2])
local second, sum = come(KEYS[1])
-- No more is taken back than is there: they may have left the window, or Redis have lost it.
local here = second - at < SECONDS and tonumber(redis.call('HGET', KEYS[1], at % SECONDS) or 0) or 0
local more = math.min(tonumber(ARGV[1]), here)
if more > 0 then
  add(KEYS[1], second, sum, at, -more)
end
return more

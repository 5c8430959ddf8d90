-- Puts what was used in the place of what was reserved, and frees the answer's place.
-- KEYS as in reserve.lua, the day and the month being those of the reservation.
-- ARGV: tokens reserved; tokens used; limit of tokens per minute (0 is none); the second of the reservation; the
-- answer's id; its limits of tokens per day and per month (0 is none).
-- No more is given back than is there: Redis may have lost it.
local reserved, used, per_minute, at = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if per_minute > 0 then
  local second, sum = come(KEYS[1])
  local more = used - math.min(reserved, per_minute)
  if second - at >= SECONDS then
    at, more = second, math.max(more, 0) -- What was reserved has left the window.
  end
  more = math.max(more, -tonumber(redis.call('HGET', KEYS[1], at % SECONDS) or 0))
  if sum + more == 0 then
    redis.call('DEL', KEYS[1])
  elseif more ~= 0 then
    add(KEYS[1], second, sum, at, more)
  end
end
redis.call('ZREM', KEYS[2], ARGV[5])
for number = 3, 4 do
  local sum = tonumber(ARGV[3 + number]) > 0 and redis.call('GET', KEYS[number])
  if sum then
    redis.call('INCRBY', KEYS[number], math.max(used - reserved, -tonumber(sum)))
  end
end
return 0

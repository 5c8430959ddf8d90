-- Reserves tokens and a place for one answer, or nothing.
-- KEYS[1] the window of tokens; KEYS[2] the open answers, by the time at which their lease ends; KEYS[3] and KEYS[4]
-- what the day and the month have used.
-- ARGV: tokens to reserve; limits of tokens per minute, open answers, tokens per day and per month (0 is none); the
-- answer's id; microseconds of a lease; seconds until the day and the month end.
-- Returns the limit that is in the way (0 for none), the microseconds to wait for it, and of the minute's tokens (0 where
-- they have no limit, or another is in the way) those in the window, the microseconds until the last of them has left it,
-- and the second of the reservation.
local tokens, per_minute, open, per_day, per_month =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local cost = math.min(tokens, per_minute) -- More than the limit is granted by an empty window.
local second, sum = 0, 0
if per_minute > 0 then
  second, sum = come(KEYS[1])
  if sum + cost > per_minute then
    local wait, empty_in = leaves_in(KEYS[1], second, sum + cost - per_minute)
    return {1, wait, sum, empty_in, second}
  end
end
if open > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  if redis.call('ZCARD', KEYS[2]) >= open then
    return {2, 1000000, 0, 0, 0}
  end
end
for number = 3, 4 do
  local limit = number == 3 and per_day or per_month
  if limit > 0 and tonumber(redis.call('GET', KEYS[number]) or 0) + tokens > limit then
    return {number, tonumber(ARGV[5 + number]) * 1000000, 0, 0, 0}
  end
end
local empty_in = 0
if per_minute > 0 then
  sum, empty_in = add(KEYS[1], second, sum, second, cost), left_in(second)
end
if open > 0 then
  redis.call('ZADD', KEYS[2], now + ARGV[7], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[7] / 1000))
end
for number = 3, 4 do
  if tonumber(ARGV[1 + number]) > 0 then
    redis.call('INCRBY', KEYS[number], tokens)
    redis.call('EXPIRE', KEYS[number], ARGV[5 + number] + 3600)
  end
end
return {0, 0, sum, empty_in, second}

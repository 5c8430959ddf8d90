#!lua flags=allow-oom
-- Reserves tokens and a place for one answer, or nothing.
-- KEYS[1] the bucket of tokens: the time at which it will be full again, in microseconds; KEYS[2] the open answers, by
-- the time at which their lease ends; KEYS[3] and KEYS[4] what the day and the month have used.
-- ARGV: tokens to reserve; limits of tokens per minute, open answers, tokens per day and per month (0 is none); the
-- answer's id; microseconds of a lease; seconds until the day and the month end.
-- Returns the limit that is in the way (0 for none), the microseconds to wait for it, and those until the bucket will be
-- full again (0 where there is none).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local tokens, per_minute, open, per_day, per_month =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local full_at
local full_in = 0
if per_minute > 0 then
  -- More than the bucket holds is granted by a full one.
  local cost = math.min(tokens, per_minute) * 60000000 / per_minute
  full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + cost
  full_in = full_at - now
  if full_at - now > 60000000 then
    return {1, math.ceil(full_at - now - 60000000), full_at - now - cost}
  end
end
if open > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  if redis.call('ZCARD', KEYS[2]) >= open then
    return {2, 1000000, 0}
  end
end
for number = 3, 4 do
  local limit = number == 3 and per_day or per_month
  if limit > 0 and tonumber(redis.call('GET', KEYS[number]) or 0) + tokens > limit then
    return {number, tonumber(ARGV[5 + number]) * 1000000, 0}
  end
end
if full_at then
  redis.call('SET', KEYS[1], string.format('%d', full_at), 'PX', math.ceil((full_at - now) / 1000) + 1)
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
return {0, 0, full_in}

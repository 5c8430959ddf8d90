#!lua flags=allow-oom
-- Puts what was used in the place of what was reserved, and frees the answer's place.
-- KEYS as in reserve.lua, the day and the month being those of the reservation.
-- ARGV: tokens reserved; tokens used; limit of tokens per minute (0 is none); the answer's id.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reserved, used, per_minute = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if per_minute > 0 then
  local full_at = tonumber(redis.call('GET', KEYS[1]) or 0)
  full_at = math.max(full_at, now) + (used - math.min(reserved, per_minute)) * 60000000 / per_minute
  if full_at > now then
    redis.call('SET', KEYS[1], string.format('%d', full_at), 'PX', math.ceil((full_at - now) / 1000) + 1)
  else
    redis.call('DEL', KEYS[1])
  end
end
redis.call('ZREM', KEYS[2], ARGV[4])
for number = 3, 4 do
  if redis.call('EXISTS', KEYS[number]) == 1 then
    redis.call('INCRBY', KEYS[number], used - reserved)
  end
end
return 0

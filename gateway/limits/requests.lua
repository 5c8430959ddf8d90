#!lua flags=allow-oom
-- A token bucket in one number (GCRA): the time at which the bucket will be full again, in microseconds.
-- KEYS[1] the bucket; ARGV[1] microseconds for one request; ARGV[2] requests the bucket holds.
-- Returns, when the request is granted, the microseconds until the bucket will be full again; when it is not, below 0,
-- those until one will be granted.
-- The clock is Redis' own: those of the gateways may differ.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + each
local over = full_at - now - each * capacity
if over > 0 then
  return -over
end
redis.call('SET', KEYS[1], string.format('%d', full_at), 'PX', math.ceil((full_at - now) / 1000))
return full_at - now

#!lua flags=allow-oom
-- Renews the leases of open answers, those too that have ended or that Redis has lost: their worker knows better.
-- KEYS[1] the open answers; ARGV[1] microseconds of a lease; then the answers' ids.
local time = redis.call('TIME')
for number = 2, #ARGV do
  redis.call('ZADD', KEYS[1], time[1] * 1000000 + time[2] + ARGV[1], ARGV[number])
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
return 0

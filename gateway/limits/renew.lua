#!lua flags=allow-oom
-- Renews an open answer's lease. KEYS[1] the open answers; ARGV[1] the answer's id; ARGV[2] microseconds of a lease.
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', time[1] * 1000000 + time[2] + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return 0

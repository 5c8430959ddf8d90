#!lua flags=allow-oom
-- Adds a batch of sums to a day, once. The mark is written each time: WAITAOF waits for nothing but what its own
-- connection has written, and this one may have got the batch first by another.
-- KEYS[1] the mark of the batch; KEYS[2] the day; ARGV[1] seconds that the day is kept; then fields and values in turn.
if not redis.call('SET', KEYS[1], 1, 'EX', 86400, 'GET') then
  for i = 2, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1])
  end
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end

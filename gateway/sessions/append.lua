-- Adds a turn to a session and lets its oldest ones go; the new one always stays.
-- KEYS as in open.lua; ARGV: the turn; the session's id; how many turns and how many bytes it may have; seconds that it
-- is kept from now on.
local most_turns, most_bytes, seconds = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('RPUSH', KEYS[1], ARGV[1])
local turns = redis.call('LRANGE', KEYS[1], -most_turns, -1)
local kept, bytes = 1, #turns[#turns]
while kept < #turns and bytes + #turns[#turns - kept] <= most_bytes do
  bytes = bytes + #turns[#turns - kept]
  kept = kept + 1
end
redis.call('LTRIM', KEYS[1], -kept, -1)
redis.call('EXPIRE', KEYS[1], seconds)
redis.call('ZADD', KEYS[2], redis.call('TIME')[1] + seconds, ARGV[2])
redis.call('EXPIRE', KEYS[2], seconds)
return kept

-- Adds a turn to a session and lets its oldest ones go; the new one always stays.
-- KEYS as in room.lua; ARGV: how many sessions a tenant may have; the turn; the session's id; how many turns and how many
-- bytes it may have; seconds that it is kept from now on.
-- Returns how many turns it has; nil when others that were opened at the same time have left no room for it.
if not has_room() then
  return false
end
local most_turns, most_bytes, seconds = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('RPUSH', KEYS[1], ARGV[2])
local turns = redis.call('LRANGE', KEYS[1], -most_turns, -1)
local kept, bytes = 1, #turns[#turns]
while kept < #turns and bytes + #turns[#turns - kept] <= most_bytes do
  bytes = bytes + #turns[#turns - kept]
  kept = kept + 1
end
redis.call('LTRIM', KEYS[1], -kept, -1)
redis.call('EXPIRE', KEYS[1], seconds)
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + seconds, ARGV[3])
redis.call('EXPIRE', KEYS[2], seconds)
return kept

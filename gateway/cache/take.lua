-- Puts a claim in the place of one that is lost, or of nothing. What somebody else has put there stays, and is returned.
-- KEYS: of the answer.
-- ARGV: the lost claim; the new one, or '' to take the lost one away; milliseconds that the new one holds.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return held
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return false

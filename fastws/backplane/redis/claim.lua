#!lua flags=allow-oom
-- A node has users, or has them no more. Returns for each the nodes that have him or her.
-- KEYS  calls, the node's holdings; for each user: nodes
-- ARGV  node, number of the call (0: somebody else's, for a dead node); for each user: is release, name in the holdings
-- A call that comes after a later one of the same node, out of a connection that was given up, changes nothing.
local node, number = ARGV[1], tonumber(ARGV[2])
local is_fresh = number == 0 or number > tonumber(redis.call('HGET', KEYS[1], node) or 0)
if is_fresh and number > 0 then redis.call('HSET', KEYS[1], node, ARGV[2]) end
local answer, a = {}, 3
for k = 3, #KEYS do
  if is_fresh and ARGV[a] == '1' then
    redis.call('HDEL', KEYS[k], node)
    redis.call('SREM', KEYS[2], ARGV[a + 1])
  elseif is_fresh then
    redis.call('HSET', KEYS[k], node, '')
    redis.call('SADD', KEYS[2], ARGV[a + 1])
  end
  answer[#answer + 1] = table.concat(redis.call('HKEYS', KEYS[k]), '\n')
  a = a + 2
end
return answer

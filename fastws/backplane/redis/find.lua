#!lua flags=no-writes
-- The nodes of each user.   KEYS  for each user: nodes
local answer = {}
for k = 1, #KEYS do answer[k] = table.concat(redis.call('HKEYS', KEYS[k]), '\n') end
return answer

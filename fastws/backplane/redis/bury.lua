#!lua flags=allow-oom
-- Takes a node for dead if it has beaten so often and no more. Returns the nodes whose users the caller has to release.
-- KEYS  nodes, infos, dead   ARGV  node, beats, caller, is asked again
local jobs = {}
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  local dead = redis.call('HGETALL', KEYS[3])
  for i = 1, #dead, 2 do
    if dead[i + 1] == ARGV[1] then jobs[#jobs + 1] = dead[i] end
  end
  jobs[#jobs + 1] = ARGV[1]
  for _, node in ipairs(jobs) do redis.call('HSET', KEYS[3], node, ARGV[3]) end
elseif ARGV[4] == '1' and redis.call('HGET', KEYS[3], ARGV[1]) == ARGV[3] then
  local dead = redis.call('HGETALL', KEYS[3])
  for i = 1, #dead, 2 do
    if dead[i + 1] == ARGV[3] then jobs[#jobs + 1] = dead[i] end
  end
end
return jobs

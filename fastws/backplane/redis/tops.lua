#!lua flags=allow-oom
-- The metas of logs (nothing for one that never was), which are kept for longer.
-- KEYS  metas   ARGV  for each: meta ttl ms
local metas = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  if metas[i] then redis.call('PEXPIRE', KEYS[i], ARGV[i]) end
end
return metas

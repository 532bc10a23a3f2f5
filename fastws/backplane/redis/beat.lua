#!lua flags=allow-oom
-- Counts up the beats of a node. Returns {its beats, all nodes' beats, all nodes' infos}.
-- KEYS  nodes, infos   ARGV  node, info
local beats = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {beats, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}

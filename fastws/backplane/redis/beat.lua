#!lua flags=allow-oom
-- Counts up the beats of a node. Returns {its beats, all nodes' beats, all nodes' infos}.
-- KEYS  nodes, infos   ARGV  node, info, the beats that the node knows of
-- With fewer it was buried, or is lost: it stays at 0, so that it is told though a beat that came late was told before.
local known, beats = tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
beats = beats < known and 0 or beats + 1
redis.call('HSET', KEYS[1], ARGV[1], beats)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {beats, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}

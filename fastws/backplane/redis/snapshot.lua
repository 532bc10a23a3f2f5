#!lua flags=allow-oom
-- The newest records: {top, entries}; of a log with keys the entries are pairs: key, value.
-- KEYS  meta, list, values, ids   ARGV  size, has keys, meta ttl ms
local found = redis.call('GET', KEYS[1])
if not found then
  local time = redis.call('TIME')
  local now = string.format('%d', tonumber(time[1]) * 1000000 + tonumber(time[2]))
  found = string.format('0 %s 0-%s 0', now, now)
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('SET', KEYS[1], found, 'PX', ARGV[3])
end
local offset, tag = string.match(found, '^(%d+) (%d+)')
local top = offset .. '-' .. tag
if ARGV[2] == '1' then return {top, redis.call('HGETALL', KEYS[3])} end
return {top, redis.call('LRANGE', KEYS[2], -ARGV[1], -1)}

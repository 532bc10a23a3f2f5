#!lua flags=allow-oom
-- What came after a position: {status, top, entries}; of a log with keys the entries are triples: position, key, value.
-- KEYS  meta, list, values, ids   ARGV  offset, tag ('' '': only the top), limit, has keys, meta ttl ms
local found = redis.call('GET', KEYS[1])
if not found then
  local time = redis.call('TIME')
  local now = string.format('%d', tonumber(time[1]) * 1000000 + tonumber(time[2]))
  found = string.format('0 %s 0-%s 0', now, now)
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('SET', KEYS[1], found, 'PX', ARGV[5])
end
local offset, tag, base = string.match(found, '^(%d+) (%d+) (%S+)')
local top, since = offset .. '-' .. tag, ARGV[1] .. '-' .. ARGV[2]
if ARGV[1] == '' or since == top then return {'ok', top, {}} end
local missing, length = tonumber(offset) - tonumber(ARGV[1]), redis.call('LLEN', KEYS[2])
if missing <= 0 then return {'unknown', top, {}} end
if missing < length then
  if string.match(redis.call('LINDEX', KEYS[2], -missing - 1), '^%S+') ~= since then return {'unknown', top, {}} end
elseif missing > length or since ~= base then
  return {'trimmed', top, {}}
end
local limit = tonumber(ARGV[3])
if ARGV[4] ~= '1' then
  if missing > limit then return {'too_many', top, {}} end
  return {'ok', top, redis.call('LRANGE', KEYS[2], -missing, -1)}
end
if limit == 0 then return {'too_many', top, {}} end
local entries, seen, newest, keys = redis.call('LRANGE', KEYS[2], -missing, -1), {}, {}, {}
for i = #entries, 1, -1 do
  local position, key = string.match(entries[i], '^(%S+)\n(.*)$')
  if not seen[key] then
    seen[key] = true
    newest[#newest + 1], keys[#keys + 1] = position, key
  end
end
if #keys > limit then return {'too_many', top, {}} end
local triples, values = {}, {}
for i = 1, #keys, 5000 do
  for _, value in ipairs(redis.call('HMGET', KEYS[3], unpack(keys, i, math.min(i + 4999, #keys)))) do
    values[#values + 1] = value
  end
end
for i = #keys, 1, -1 do
  triples[#triples + 1], triples[#triples + 2], triples[#triples + 3] = newest[i], keys[i], values[i]
end
return {'ok', top, triples}

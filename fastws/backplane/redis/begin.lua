#!lua flags=allow-oom
-- Begins a log anew, empty; or, if the record `seen` is not there, without its list only. Returns the top.
-- KEYS  meta, list, values, ids   ARGV  channel, reason, seen offset, seen tag (both '': empty), meta ttl ms
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local offset, tag, base_offset, seen = 0, 0, 0, tonumber(ARGV[3])
local found = redis.call('GET', KEYS[1])
if found then
  local o, t, b = string.match(found, '^(%d+) (%d+) (%d+)')
  offset, tag, base_offset = tonumber(o), tonumber(t), tonumber(b)
else
  tag = now
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('SET', KEYS[1], string.format('0 %d 0-%d 0', tag, tag), 'PX', ARGV[5])
end
if seen then
  local top = string.format('%d-%d', offset, tag)
  local missing = offset - seen
  if seen <= base_offset or ARGV[3] .. '-' .. ARGV[4] == top then return top end
  if missing > 0 then
    if missing >= redis.call('LLEN', KEYS[2]) then return top end
    local entry = redis.call('LINDEX', KEYS[2], -missing - 1)
    if string.match(entry, '^%S+') == ARGV[3] .. '-' .. ARGV[4] then return top end
  end
  offset = math.max(offset, seen)
else
  redis.call('DEL', KEYS[3])
end
tag = math.max(now, tag + 1)
if string.format('%d', tag) == ARGV[4] then tag = tag + 1 end
local base = string.format('%d-%d', offset, tag)
redis.call('DEL', KEYS[2], KEYS[4])
redis.call('SET', KEYS[1], string.format('%d %d %s 0', offset, tag, base), 'PX', ARGV[5])
redis.call('SPUBLISH', ARGV[1], 'B' .. string.format('%d %d', offset, tag) .. ' ' .. ARGV[2])
return base

#!lua
-- Appends to several logs. A call that is asked again (its connection was lost) is carried out once, and never after a later one.
-- KEYS  the caller's last call; for each log: meta, list, values, ids
-- ARGV  number of the call; for each log: channel, size, ttl ms, meta ttl ms, has keys, n, and n times: key, is deletion, id, payload
local last = redis.call('GET', KEYS[1])
if last then
  local number, positions = string.match(last, '^(%d+) (.*)$')
  if number == ARGV[1] then return positions end
  if tonumber(number) > tonumber(ARGV[1]) then return redis.error_reply('STALE a later call was carried out') end
end
local time = redis.call('TIME')
local seconds, now = tonumber(time[1]), tonumber(time[1]) * 1000000 + tonumber(time[2])
local positions, a = {}, 2
for k = 2, #KEYS, 4 do
  local meta, list, values, ids = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local channel, size, ttl, meta_ttl = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3]
  local has_keys, count = ARGV[a + 4] == '1', tonumber(ARGV[a + 5])
  a = a + 6
  local found, offset, top_tag, base, refreshed = redis.call('GET', meta), nil, nil, nil, nil
  if found then
    offset, top_tag, base, refreshed = string.match(found, '^(%d+) (%d+) (%S+) (%d+)$')
  else
    redis.call('DEL', list, values, ids)
    offset, top_tag, refreshed = '0', string.format('%d', now), '0'
    base = '0-' .. top_tag
  end
  local previous, n = offset .. '-' .. top_tag, tonumber(offset)
  local tag = string.format('%d', math.max(now, tonumber(top_tag) + 1))
  local push, wire, is_new_key, has_ids = {}, {'', '\n'}, false, false
  for _ = 1, count do
    local key, is_deletion, id, payload = ARGV[a], ARGV[a + 1] == '1', ARGV[a + 2], ARGV[a + 3]
    a = a + 4
    local position = id ~= '' and redis.call('HGET', ids, id)
    if not position then
      n = n + 1
      position = string.format('%d-%s', n, tag)
      if has_keys then
        push[#push + 1] = position .. '\n' .. key
        if is_deletion then
          redis.call('HDEL', values, key)
        elseif redis.call('HSET', values, key, position .. '\n' .. payload) == 1 then
          is_new_key = true
        end
      else
        push[#push + 1] = position .. '\n' .. payload
      end
      wire[#wire + 1] = #key .. ' ' .. (is_deletion and '-1' or #payload) .. '\n'
      wire[#wire + 1] = key
      wire[#wire + 1] = is_deletion and '' or payload
      if id ~= '' then redis.call('HSET', ids, id, position); has_ids = true end
    end
    positions[#positions + 1] = position
  end
  if #push > 0 then
    local is_anew = redis.call('RPUSH', list, unpack(push)) == #push
    if is_anew then base = previous end
    if n % 16 < #push then redis.call('LTRIM', list, -size - 1, -1) end
    local life = string.format('%d', ttl * 1.25)
    if is_anew or is_new_key or math.abs(seconds - tonumber(refreshed)) * 8000 > ttl then
      refreshed = time[1]
      redis.call('PEXPIRE', list, life)
      if has_keys then redis.call('PEXPIRE', values, life) end
    end
    if has_ids then
      if redis.call('HLEN', ids) > 2000 then
        local all, old = redis.call('HGETALL', ids), {}
        for i = 1, #all, 2 do
          if tonumber(string.match(all[i + 1], '^%d+')) <= n - 1000 then old[#old + 1] = all[i] end
        end
        for i = 1, #old, 5000 do redis.call('HDEL', ids, unpack(old, i, math.min(i + 4999, #old))) end
      end
      redis.call('PEXPIRE', ids, life)
    end
    redis.call('SET', meta, string.format('%d %s %s %s', n, tag, base, refreshed), 'PX', meta_ttl)
    wire[1] = 'H' .. offset .. ' ' .. top_tag .. ' ' .. tag
    redis.call('SPUBLISH', channel, table.concat(wire))
  end
end
local result = table.concat(positions, ' ')
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. result, 'PX', 600000)
return result

#!lua flags=allow-oom
-- Publishes once to the inbox of each other node that has any of the users.
-- KEYS  for each user: nodes   ARGV  id of the caller, what inboxes begin with, payload
local sent = {[ARGV[1]] = true}
for k = 1, #KEYS do
  for _, node in ipairs(redis.call('HKEYS', KEYS[k])) do
    local id = string.match(node, '^(.*)%.%d+$')
    if not sent[id] then
      sent[id] = true
      redis.call('SPUBLISH', ARGV[2] .. id, ARGV[3])
    end
  end
end
return 0

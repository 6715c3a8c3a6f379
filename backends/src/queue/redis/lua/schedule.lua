--[[
  Makes the given recurrences those of a queue, in the place of BullMQ's job schedulers. One whose expression has not
  changed keeps its next occurrence. Schedulers that others have made are left alone.

  KEYS[1]  the queue's prefix
  ARGV     for each: its id, name, cron expression, data, and when it is due next
]]
local p = KEYS[1]
local all, wanted = p .. "repeat", {}
for at = 1, #ARGV, 5 do
  wanted[ARGV[at]] = true
end
for _, id in ipairs(call("ZRANGE", all, 0, -1)) do
  if not wanted[id] and call("HEXISTS", all .. ":" .. id, "x-ours") == 1 then
    call("ZREM", all, id)
    call("DEL", all .. ":" .. id)
  end
end
for at = 1, #ARGV, 5 do
  local id, name, cron, data, due = unpack(ARGV, at, at + 4)
  local key = all .. ":" .. id
  if call("HGET", key, "pattern") ~= cron or not call("ZSCORE", all, id) then
    call("ZADD", all, due, id)
  end
  call("HSET", key, "name", name, "pattern", cron, "tz", "UTC", "data", data, "x-ours", 1)
  call("HSETNX", key, "ic", 1)
end
if #ARGV > 0 then
  ensure_queue(p)
end
return 1

--[[
  The recurrences of a queue that are ours.

  KEYS[1]  the queue's prefix

  Answers for each {id, name, cron expression, data, when it is due next}.
]]
local all, found = KEYS[1] .. "repeat", {}
local ids = call("ZRANGE", all, 0, -1, "WITHSCORES")
for at = 1, #ids, 2 do
  local fields = call("HMGET", all .. ":" .. ids[at], "x-ours", "name", "pattern", "data")
  if fields[1] then
    found[#found + 1] = { ids[at], fields[2], fields[3], fields[4], string.format("%.0f", tonumber(ids[at + 1])) }
  end
end
return found

--[[
  Removes a job that is not active.

  KEYS[1]  the queue's prefix
  ARGV[1]  the job's id

  Answers "removed", "missing" or "active".
]]
local p, id = KEYS[1], ARGV[1]
if call("EXISTS", p .. id) == 0 then
  return "missing"
end
if call("EXISTS", p .. id .. ":lock") == 1 or call("LPOS", p .. "active", id) then
  return "active"
end
for _, set in ipairs({ "completed", "failed", "delayed", "prioritized", "waiting-children" }) do
  call("ZREM", p .. set, id)
end
call("LREM", p .. "wait", 0, id)
call("LREM", p .. "paused", 0, id)
forget(p, id)
emit(p, "removed", "jobId", id)
return "removed"

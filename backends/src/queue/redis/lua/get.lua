--[[
  A job and where it stands.

  KEYS[1]  the queue's prefix
  ARGV[1]  the job's id

  Answers {state, its hash, the queue's defaults}; an empty state where there is no such job.
]]
local p, id = KEYS[1], ARGV[1]
local function state()
  if call("EXISTS", p .. id) == 0 then
    return ""
  end
  for _, set in ipairs({ "completed", "failed", "delayed", "prioritized" }) do
    if call("ZSCORE", p .. set, id) then
      return set
    end
  end
  -- A lock tells it without a walk through the list.
  if call("EXISTS", p .. id .. ":lock") == 1 or call("LPOS", p .. "active", id) then
    return "active"
  end
  return is_paused(p) and "paused" or "waiting"
end
return { state(), call("HGETALL", p .. id), call("HGETALL", p .. "exprsn") }

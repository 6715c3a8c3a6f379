--[[
  Jobs in a state, newest first.

  KEYS[1]  the queue's prefix
  ARGV[1]  completed, failed, delayed, prioritized, active, waiting or paused
  ARGV[2]  how many to leave out
  ARGV[3]  how many at most

  Answers {jobs, whether the queue is paused, its defaults}; a job is {id, its hash}.
]]
local p, state = KEYS[1], ARGV[1]
local first, last = tonumber(ARGV[2]), tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1
local paused, ids = is_paused(p), {}
if last < first or (state == "paused" and not paused) then
  ids = {}
elseif state == "waiting" or state == "paused" then
  ids = call("LRANGE", paused and p .. "paused" or p .. "wait", first, last)
elseif state == "active" then
  ids = call("LRANGE", p .. "active", first, last)
else
  ids = call("ZREVRANGE", p .. state, first, last)
end
local jobs = {}
for _, id in ipairs(ids) do
  local fields = call("HGETALL", p .. id)
  if #fields > 0 then
    jobs[#jobs + 1] = { id, fields }
  end
end
return { jobs, paused and 1 or 0, call("HGETALL", p .. "exprsn") }

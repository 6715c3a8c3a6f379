--[[
  Adds jobs to a queue, all or none.

  KEYS[1]  the queue's prefix
  ARGV[1]  now
  ARGV[2]  how many jobs may wait
  ARGV[3…] for each job its description in JSON and its data

  Answers {1, 0}, or {0, jobs that wait} where the limit forbids it.
]]
local p, now = KEYS[1], ARGV[1]
local waiting = pending(p)
if waiting + (#ARGV - 2) / 2 > tonumber(ARGV[2]) then
  return { 0, waiting }
end
ensure_queue(p)
for at = 3, #ARGV, 2 do
  add(p, cjson.decode(ARGV[at]), ARGV[at + 1], now)
end
return { 1, 0 }

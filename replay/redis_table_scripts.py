"""The Lua scripts of RedisTable; memory_table.py says the same in Python.

Keys of a table, with its prefix (see redis_scripts.py):

    state            hash    head tail bytes samples stream; of accounted tables also available base consumed
                             updated dropped max_priority
    episode:<index>  string  an Episode message
    stored           hash    index -> "<env_steps after it> <ms since 1970>", of the window's episodes
    scores           string  eight bytes per index from `base` on: a little-endian double, 0 for what has left
    times            hash    index -> how often it was handed out, where that is limited
    times:consumed   hash    index -> how many of these have been consumed
    batches          hash    number of a batch taken and not consumed -> its Draws as text
"""

from replay.redis_scripts import COMMON, Script

# ARGV 1-14 are those of _rules() in redis_table.py.
_TABLE = (
    COMMON
    + """
local name, names = ARGV[1], ARGV[2]
local batch_size, minimum, queue = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == 'queue'
local per_insert, lead = tonumber(ARGV[6]), tonumber(ARGV[7])
local max_episodes, max_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local prioritised, accounted = ARGV[10] == 'prioritised', ARGV[11] == '1'
local max_times, max_age = tonumber(ARGV[12]), tonumber(ARGV[13])

local own = table_prefix(name)
local its, batches, scores = own .. 'state', own .. 'batches', own .. 'scores'
local times, times_consumed = own .. 'times', own .. 'times:consumed'
local function numbers(...)
  local values = redis.call('HMGET', its, ...)
  for i = 1, #values do values[i] = tonumber(values[i] or 0) end
  return unpack(values)
end
local head, tail, bytes, samples = numbers('head', 'tail', 'bytes', 'samples')
local available, base, consumed = head - tail, 0, 0
if accounted then available, base, consumed = numbers('available', 'base', 'consumed') end

local changed = false
local function save()
  if not changed then return end
  redis.call('HSET', its, 'head', head, 'tail', tail, 'bytes', bytes, 'samples', samples)
  if accounted then
    redis.call('HSET', its, 'available', available, 'base', base, 'consumed', consumed)
  end
end
local function text(number) return string.format('%.0f', number) end
local function episode_key(index) return own .. 'episode:' .. text(index) end
local function score_of(index)
  if index < tail or index >= head then return 0 end
  local at = (index - base) * 8
  return (struct.unpack('<d', redis.call('GETRANGE', scores, at, at + 7)))
end
local function set_score(index, score)
  redis.call('SETRANGE', scores, (index - base) * 8, struct.pack('<d', score))
end

local function may_sample()
  if queue then return available >= batch_size end
  return available >= minimum and samples + batch_size <= per_insert * head
end
local function may_insert(count, size)
  if queue then
    local held = available + batch_size * redis.call('HLEN', batches)
    return (held + count <= max_episodes and bytes + size <= max_bytes)
      or (held == available and available < batch_size)
  end
  return per_insert * head - samples <= per_insert * lead or not may_sample()
end
local function is_due(batch)
  return may_sample() or (not queue and available >= batch_size and samples == (batch + 1) * batch_size)
end
local function count(batch)
  local held_back = not may_insert(1, 0)
  samples, changed = (queue and samples or batch * batch_size) + batch_size, true
  save()
  if held_back and may_insert(1, 0) then publish('samples') end
end

local function remove(index)
  local key = episode_key(index)
  bytes, changed = bytes - redis.call('STRLEN', key), true
  redis.call('UNLINK', key)
  redis.call('HDEL', own .. 'stored', text(index))
  if not accounted then
    tail, available = tail + 1, available - 1
    return
  end
  if score_of(index) > 0 then available = available - 1 end
  set_score(index, 0)
  redis.call('HDEL', times, text(index))
  redis.call('HDEL', times_consumed, text(index))
  while tail < head and score_of(tail) == 0 do tail = tail + 1 end
  if tail - base >= 1024 then
    redis.call('SET', scores, redis.call('GETRANGE', scores, (tail - base) * 8, -1))
    base = tail
  end
end
"""
)

# What a batch that was taken is made of, and what becomes of it.
_BATCHES = (
    _TABLE
    + """
local function members(batch)
  local indices = {}
  local draws = redis.call('HGET', batches, batch)
  for index in string.gmatch(string.match(draws, '^[^|]*'), '%d+') do
    indices[#indices + 1] = tonumber(index)
  end
  return indices
end
local function undo(batch)
  for _, index in ipairs(members(batch)) do
    local score = score_of(index)
    if max_times > 0 and score ~= 0 then
      redis.call('HINCRBY', times, text(index), -1)
      if score < 0 then
        set_score(index, -score)
        available = available + 1
      end
    end
  end
  redis.call('HDEL', batches, batch)
  if queue then samples = samples - batch_size end
  changed = true
end
local function consume(before)
  if not accounted or before <= consumed then return end
  consumed, changed = before, true
  local done = false
  for _, batch in ipairs(redis.call('HKEYS', batches)) do
    if tonumber(batch) < before then
      done = true
      local indices = max_times > 0 and members(batch) or {}
      redis.call('HDEL', batches, batch)
      for _, index in ipairs(indices) do
        local score = score_of(index)
        if score ~= 0 then
          local past = redis.call('HINCRBY', times_consumed, text(index), 1)
          local all = tonumber(redis.call('HGET', times, text(index)))
          if score < 0 and past == all then remove(index) end
        end
      end
    end
  end
  if done then publish('samples') end
end
"""
)

# ARGV: rules; 14 evaluation_interval, 15 upload prefix, 16 '1' if imported, then per episode session, seq,
# length, size, weights version. Returns {'HELD'|'MISSING'|outcomes, first index, tail, env_steps, inserts,
# samples, weights_version, total}; inserts and samples are of all tables.
COMMIT = Script(
    _TABLE
    + """
local interval, upload, imported = tonumber(ARGV[14]), ARGV[15], ARGV[16] == '1'
local count = (#ARGV - 16) / 5
local env_steps = get('env_steps')
local first_index, steps_before, samples_were_due = head, env_steps, may_sample()
local function answer(outcomes)
  local inserts, sampled = 0, 0
  for other in string.gmatch(names, '%S+') do
    local counts = redis.call('HMGET', table_prefix(other) .. 'state', 'head', 'samples')
    inserts, sampled = inserts + counts[1], sampled + counts[2]
  end
  local version = redis.call('HGET', state, 'weights_version')
  return {outcomes, first_index, tail, env_steps, inserts, sampled, version, total}
end

local outcomes, stored, marks, last_seq, steps, size = {}, {}, {}, {}, env_steps, 0
for i = 1, count do
  local at = 12 + 5 * i
  local session, seq, length = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local last = last_seq[session] or redis.call('HGET', prefix .. 'seqs', session)
  if last and seq <= last then
    outcomes[i] = 'D'
  elseif steps >= total then
    outcomes[i] = 'C'
  else
    outcomes[i], last_seq[session], steps = 'S', seq, steps + length
    stored[#stored + 1], marks[#marks + 1], size = i, steps, size + tonumber(ARGV[at + 3])
  end
end
if #stored > 0 and not (imported or may_insert(#stored, size)) then return answer('HELD') end
for _, i in ipairs(stored) do
  if redis.call('EXISTS', upload .. i) == 0 then return answer('MISSING') end
end

local new_score = prioritised and tonumber(redis.call('HGET', its, 'max_priority') or 1)
local now = redis.call('TIME')
now = ' ' .. text(now[1] * 1000 + math.floor(now[2] / 1000))
for n, i in ipairs(stored) do
  local episode = episode_key(head)
  redis.call('HSET', own .. 'stored', text(head), text(marks[n]) .. now)
  redis.call('RENAME', upload .. i, episode)
  redis.call('PERSIST', episode)
  if accounted then set_score(head, new_score or tonumber(ARGV[16 + 5 * i]) + 1) end
  bytes, head, available = bytes + tonumber(ARGV[15 + 5 * i]), head + 1, available + 1
end
env_steps = steps
for i = 1, count do
  if outcomes[i] ~= 'S' then redis.call('UNLINK', upload .. i) end
end
for session, seq in pairs(last_seq) do redis.call('HSET', prefix .. 'seqs', session, seq) end
while not queue and (head - tail > max_episodes or (bytes > max_bytes and available > minimum)) do
  remove(tail)
end
changed = true
save()
redis.call('HSET', state, 'env_steps', env_steps)

local weights, session = newest_weights()
local last_point = imported and 0 or env_steps
for point = (math.floor(steps_before / interval) + 1) * interval, last_point, interval do
  redis.call('ZADD', due, point, point)
  if session ~= '' then redis.call('HSET', due_weights, point, weights) end
  publish('evaluations')
end
local completed = steps_before < total and env_steps >= total
if completed or (may_sample() and not samples_were_due) then publish('episodes') end
if completed then publish('evaluations') end
return answer(table.concat(outcomes))
"""
)

# ARGV: rules; 14 consumed batches. Returns the number of the new stream.
OPEN_STREAM = Script(
    _BATCHES
    + """
local before = tonumber(ARGV[14])
if accounted then
  if before < consumed then
    for _, batch in ipairs(redis.call('HKEYS', batches)) do undo(batch) end
  end
  consumed = math.min(consumed, before)
  consume(before)
end
if prioritised then
  local updated = tonumber(redis.call('HGET', its, 'updated') or -1)
  redis.call('HSET', its, 'updated', math.min(updated, before - 1))
end
if not queue then samples = before * batch_size end
changed = true
save()
publish('samples')
publish('episodes')
return redis.call('HINCRBY', its, 'stream', 1)
"""
)

_STREAM = (
    _BATCHES
    + """
if numbers('stream') ~= tonumber(ARGV[14]) then return {'SUPERSEDED', tail, head} end
local batch = tonumber(ARGV[15])
"""
)

# ARGV: rules; 14 stream, 15 batch, 16 consumed batches, 17 '1' to take. Returns {answer, tail, head} and for
# 'AGAIN' the draws as text, for 'CHOOSE' the scores from tail on, env_steps and total.
RESERVE = Script(
    _STREAM
    + """
local take = ARGV[17] == '1'
consume(tonumber(ARGV[16]))
local function drop_old()
  local fresh, dropped, trained = 0, 0, math.max(1, batch)
  for index = tail, head - 1 do
    local score = score_of(index)
    if score > 0 and math.abs(trained - math.max(1, score - 1)) > max_age then
      remove(index)
      dropped = dropped + 1
    elseif score > 0 then
      fresh = fresh + 1
    end
    if fresh == batch_size then break end
  end
  if dropped > 0 then
    redis.call('HINCRBY', its, 'dropped', dropped)
    publish('samples')
  end
end

local draws = accounted and redis.call('HGET', batches, text(batch))
if draws then
  for _, index in ipairs(members(text(batch))) do
    if draws and score_of(index) == 0 then
      undo(text(batch))
      draws = false
    end
  end
end
if draws then
  save()
  return {take and 'AGAIN' or 'WAIT', tail, head, draws}
end
if take and max_age >= 0 then drop_old() end
if not (take and is_due(batch)) then
  save()
  return {(get('env_steps') >= total and not may_sample()) and 'END' or 'WAIT', tail, head}
end
if accounted then
  save()
  local view = redis.call('GETRANGE', scores, (tail - base) * 8, (head - base) * 8 - 1)
  return {'CHOOSE', tail, head, view, get('env_steps'), total}
end
count(batch)
return {'GRANTED', tail, head}
"""
)

# ARGV: rules; 14 stream, 15 batch, 16 draws as text. Returns {'TAKEN'|'CHANGED'}.
TAKE = Script(
    _STREAM
    + """
local field = text(batch)
local held = redis.call('HGET', batches, field)
if held then return {held == ARGV[16] and 'TAKEN' or 'CHANGED'} end
if not is_due(batch) then return {'CHANGED'} end
redis.call('HSET', batches, field, ARGV[16])
for _, index in ipairs(members(field)) do
  if score_of(index) <= 0 then
    redis.call('HDEL', batches, field)
    return {'CHANGED'}
  end
end
if max_times > 0 then
  for _, index in ipairs(members(field)) do
    if redis.call('HINCRBY', times, text(index), 1) == max_times then
      set_score(index, -score_of(index))
      available = available - 1
    end
  end
end
count(batch)
return {'TAKEN'}
"""
)

# ARGV: rules; 14 batch, then index and priority of each. Returns an index that was never stored, or -1.
UPDATE_PRIORITIES = Script(
    _TABLE
    + """
local batch, highest = tonumber(ARGV[14]), tonumber(redis.call('HGET', its, 'max_priority') or 1)
for i = 15, #ARGV, 2 do
  if tonumber(ARGV[i]) >= head then return ARGV[i] end
end
if batch <= tonumber(redis.call('HGET', its, 'updated') or -1) then return -1 end
for i = 15, #ARGV, 2 do
  local index, priority = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local score = score_of(index)
  if score ~= 0 then set_score(index, score > 0 and priority or -priority) end
  highest = math.max(highest, priority)
end
redis.call('HSET', its, 'updated', batch, 'max_priority', string.format('%.17g', highest))
return -1
"""
)

"""The atomic steps on a stream, as Lua that the server runs. Each may run twice: the second run finds nothing to do.

Every stream has one consumer group, `workers`. An entry is a single field `p`, deleted when the entry is acknowledged. So
the length of a stream is the number of entries not yet done, and those of them that are not pending are waiting. The
consumer `-released-` owns entries that were given back, until a consumer claims them.

A server whose memory is full (maxmemory) admits no command that may take more of it as the first write of a script, and every
command after that. New prompts are then refused. All else goes on: what is on the streams moves on and is acknowledged, which
frees memory, and leases and announcements, which take a bounded amount, are written.
"""

EVEN_IF_FULL = "redis.call('DEL', KEYS[1] .. ':nothing')\n"
"""In front of a script: it runs on a full server as well, because its first write frees memory, as far as the server can tell."""

# KEYS stream; ARGV consumer, count, idle_ms (0: do not look for idle ones), deliveries that make an entry a suspect, 1 if this
# process holds a suspect; then, where an entry may have got lost on its way to this process, 'own' and the ids that it holds...
# -> {{id, payload, deliveries}, ...}: entries that were lent out before. New ones are read outside of it, because a script costs
# two more copies of each payload.
CLAIM = """
local stream, consumer, count, idle_ms = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local suspect, has_suspect = tonumber(ARGV[4]), ARGV[5] == '1'
local lent = {}

local function lend(pending)
  for _, row in ipairs(pending) do
    if #lent == count then return end
    local id, deliveries = row[1], row[4] + 1
    if deliveries < suspect or not has_suspect then
      local entry = redis.call('XCLAIM', stream, 'workers', consumer, 0, id)[1]
      if entry and entry[2] then
        lent[#lent + 1] = {id, entry[2][2], deliveries}
        has_suspect = has_suspect or deliveries >= suspect
      else -- deleted by hand
        redis.call('XACK', stream, 'workers', id)
      end
    end
  end
end

-- What was claimed before the server's clock was set back has an idle time of 0 until the clock is past that time again. The
-- clock is behind where what was claimed last is of a later time than now. (XINFO STREAM would copy two payloads.)
local function begin_idle_times_again()
  local now, last = redis.call('TIME'), 0
  for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for i = 1, #facts, 2 do
      if facts[i] == 'last-delivered-id' then last = math.max(last, tonumber(string.match(facts[i + 1], '^%d+'))) end
    end
  end
  if last <= now[1] * 1000 + math.floor(now[2] / 1000) then return end
  for _, row in ipairs(redis.call('XPENDING', stream, 'workers', '-', '+', 100000)) do
    if row[3] == 0 then redis.call('XCLAIM', stream, 'workers', row[2], 0, row[1], 'JUSTID') end
  end
end

local released = redis.pcall('XPENDING', stream, 'workers', '-', '+', count, '-released-')
if released.err then
  if not string.find(released.err, 'NOGROUP', 1, true) then return released end
  redis.call('DEL', stream .. ':nothing') -- see EVEN_IF_FULL
  redis.call('XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM')
  released = {}
end
if ARGV[6] == 'own' then
  local held, left_over = {}, {}
  for i = 7, #ARGV do held[ARGV[i]] = true end
  for _, row in ipairs(redis.call('XPENDING', stream, 'workers', '-', '+', count + #ARGV - 6, consumer)) do
    if not held[row[1]] then left_over[#left_over + 1] = row end
  end
  lend(left_over)
end
lend(released)
if idle_ms > 0 then
  begin_idle_times_again()
  if #lent < count then lend(redis.call('XPENDING', stream, 'workers', 'IDLE', idle_ms, '-', '+', count)) end
end
return lent
"""

# KEYS from, to; ARGV (id, payload)... -> {1 handed over | 0 not owed, ...}
# The first write is XACK, which a server without free memory still admits; from then on it admits XADD as well. So a full
# server can be drained. The type is checked first, because an XACK cannot be undone.
HAND_OVER = """
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', not a stream')
end
local owed = {}
for i = 1, #ARGV, 2 do
  owed[#owed + 1] = redis.call('XACK', KEYS[1], 'workers', ARGV[i])
  if owed[#owed] == 1 then
    redis.call('XADD', KEYS[2], '*', 'p', ARGV[i + 1])
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
return owed
"""

# KEYS from, to; ARGV ids... -> {1 handed over | 0 not owed, ...}
# The last command of a transaction that has appended one payload to `to` for each id, in the same order: so large payloads do not
# pass through a script. What was appended for an entry that is not owed is taken away before anybody sees it.
SETTLE = """
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', not a stream')
end
local owed, all = {}, true
for i, id in ipairs(ARGV) do
  owed[i] = redis.call('XACK', KEYS[1], 'workers', id)
  if owed[i] == 1 then redis.call('XDEL', KEYS[1], id) else all = false end
end
if not all then
  for back, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', #ARGV)) do
    if owed[#ARGV - back + 1] == 0 then redis.call('XDEL', KEYS[2], entry[1]) end
  end
end
return owed
"""

# KEYS stream; ARGV ids... -> how many were owed
ACKNOWLEDGE = """
local owed = 0
for _, id in ipairs(ARGV) do
  if redis.call('XACK', KEYS[1], 'workers', id) == 1 then
    redis.call('XDEL', KEYS[1], id)
    owed = owed + 1
  end
end
return owed
"""

# KEYS stream; ARGV consumer, ids... -> ids that this consumer no longer owns. JUSTID leaves the delivery count alone.
RENEW = """
local lost = {}
for i = 2, #ARGV do
  local mine = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[i], ARGV[i], 1, ARGV[1])
  if mine.err or #mine == 0 then
    lost[#lost + 1] = ARGV[i]
  else
    redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], 0, ARGV[i], 'JUSTID')
  end
end
return lost
"""

# KEYS stream; ARGV consumer, ids...
RELEASE = """
for i = 2, #ARGV do
  local mine = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[i], ARGV[i], 1, ARGV[1])
  if not mine.err and #mine == 1 then
    redis.call('XCLAIM', KEYS[1], 'workers', '-released-', 0, ARGV[i], 'RETRYCOUNT', mine[1][4] - 1, 'JUSTID')
  end
end
return 0
"""

# KEYS stream; ARGV consumer. JUSTID leaves the delivery count alone.
RELEASE_OF = """
local own = redis.pcall('XPENDING', KEYS[1], 'workers', '-', '+', 100000, ARGV[1])
for _, row in ipairs(own.err and {} or own) do
  redis.call('XCLAIM', KEYS[1], 'workers', '-released-', 0, row[1], 'JUSTID')
end
return 0
"""

# KEYS stream; ARGV idle_ms -> how many consumers it has forgotten. One that comes back is known again with its first claim.
FORGET = """
local all, forgotten = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], 'workers'), 0
for _, fields in ipairs(all.err and {} or all) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[1]) and consumer.name ~= '-released-' then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', consumer.name)
    forgotten = forgotten + 1
  end
end
return forgotten
"""

# KEYS stream -> {entries, pending, age of the oldest entry in milliseconds}. An id begins with the time of the append.
DEPTH = """
local pending = redis.pcall('XPENDING', KEYS[1], 'workers')
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local now, age_ms = redis.call('TIME'), 0
if oldest then
  age_ms = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(string.match(oldest[1], '^%d+')))
end
return {redis.call('XLEN', KEYS[1]), pending.err and 0 or pending[1], age_ms}
"""

# KEYS stream, counter; ARGV first sequence number, seconds after which the counter may go (0: never), payloads...
# -> {how many were not counted before | -1 gap, count}
ISSUE = """
local count, first = tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[1])
if first > count then return {-1, count} end
local new = 0
for i = 3, #ARGV do
  if first + i - 3 == count then
    redis.call('XADD', KEYS[1], '*', 'p', ARGV[i])
    count, new = count + 1, new + 1
  end
end
if new > 0 then redis.call('SET', KEYS[2], count) end
if new > 0 and ARGV[2] ~= '0' then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
return {new, count}
"""

# KEYS counter; ARGV count
ADVANCE = f"""{EVEN_IF_FULL}
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""

# KEYS stream; ARGV payload. A repeat appends twice: only for entries whose reader recognizes that.
APPEND = "return redis.call('XADD', KEYS[1], '*', 'p', ARGV[1])"

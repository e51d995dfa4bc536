-- Runs in every model cluster, once per attempt, after the header changes of that cluster. Above this line stands the
-- generated table MODELS: cluster -> {model, host, json, paths}. It gives the attempt its model's own path, host
-- and name. `h:body()` is used and never `h:bodyChunks()`: changing chunks in place corrupted requests in Envoy 1.40.

local byte, find, match, sub = string.byte, string.find, string.match, string.sub

-- Position of the quote that ends the JSON string starting at `at`, or nil.
local function string_end(text, at)
  local pos = at + 1
  while true do
    local hit = find(text, '["\\]', pos)
    if not hit then return nil end
    if byte(text, hit) == 34 then return hit end
    pos = hit + 2
  end
end

-- True for `model`, also when some of its letters are written as \u00XX.
local function is_model(key)
  if find(key, "\\", 1, true) then
    key = string.gsub(key, "\\u00(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  end
  return key == "model"
end

-- The spans {first, last} of all string values of `model` at the top level of a JSON object, quotes included.
local function model_values(text)
  local spans, depth, pos = {}, 0, 1
  if not find(text, "^%s*{") then return spans end
  while true do
    local at = find(text, '["{}%[%]]', pos)
    if not at then return spans end
    local char = byte(text, at)
    pos = at + 1
    if char == 34 then
      local last = string_end(text, at)
      if not last then return spans end
      pos = last + 1
      if depth == 1 then
        local _, colon = find(text, "^%s*:%s*", pos)
        if colon and byte(text, colon + 1) == 34 and is_model(sub(text, at + 1, last - 1)) then
          local value_end = string_end(text, colon + 1)
          if not value_end then return spans end
          spans[#spans + 1] = {colon + 1, value_end}
          pos = value_end + 1
        end
      end
    elseif char == 123 or char == 91 then
      depth = depth + 1
    else
      depth = depth - 1
    end
  end
end

-- The body is the one that the sidecar's hint is about: it is as long, and the name, as JSON spells it, stands where it
-- should.
local function fits(body, hint)
  if not hint or (hint.length and hint.length ~= body:length()) then return false end
  local quoted = '"' .. hint.name .. '"'
  return hint.offset + #quoted <= body:length() and body:getBytes(hint.offset, #quoted) == quoted
end

-- The body as the client sent it, `length` bytes long (nil: unknown). When the sidecars die while they hold a body of
-- more than 1 MiB, Envoy 1.40 forwards its first part again for each of the (at most 3) retries at another sidecar, and
-- then the whole: that is undone. Any other difference is an error: nobody knows what it is.
local function as_sent(text, length)
  local extra = length and #text - length or 0
  if extra == 0 then return text end
  local whole = sub(text, extra + 1)
  for times = 1, 3 do
    local part = extra / times
    if extra > 0 and part % 1 == 0 and part <= length
        and sub(text, 1, extra) == string.rep(sub(whole, 1, part), times) then
      return whole
    end
  end
  error("the body has " .. #text .. " bytes, the client sent " .. length)
end

-- The text with this model's name in place of every top-level model. Without any the text stays as it is, and the
-- provider refuses it.
local function renamed(text, model)
  local parts, pos = {}, 1
  for _, span in ipairs(model_values(text)) do
    parts[#parts + 1] = sub(text, pos, span[1] - 1)
    parts[#parts + 1] = model.json
    pos = span[2] + 1
  end
  parts[#parts + 1] = sub(text, pos)
  return table.concat(parts)
end

-- The body with this model's name in it, or nil when it can stay. Where the sidecar's hint fits, two look-ups and no
-- search; it does not fit when the sidecar was down, or died between its answers.
local function with_name(body, model, hint, length)
  if not fits(body, hint) then return renamed(as_sent(body:getBytes(0, body:length()), length), model) end
  if '"' .. hint.name .. '"' == model.json then return nil end
  local text = body:getBytes(0, body:length())
  return sub(text, 1, hint.offset) .. model.json .. sub(text, hint.offset + #hint.name + 3)
end

local function hint_of(metadata)
  local mom = metadata:get("mom")
  local hint = mom and mom["body"]
  if type(hint) == "table" and type(hint["name"]) == "string" and type(hint["offset"]) == "number" then
    return {name = hint["name"], offset = hint["offset"], length = hint["length"]}
  end
  return nil
end

local function prepare(h)
  local headers = h:headers()
  local model = MODELS[headers:get("x-mom-upstream")]
  headers:remove("x-mom-upstream")
  local metadata = h:streamInfo():dynamicMetadata()

  -- An earlier attempt may have changed `:path`; the path that the client sent is kept in the metadata.
  local request = metadata:get("mom.request") or {}
  local sent = request["length"]
  local path, query = match(request["path"] or headers:get(":path"), "^([^?]*)%??(.*)$")
  local target = model.paths[path]
  if not target then error("model " .. model.model .. " does not speak the API at " .. path) end
  if query ~= "" then
    target = target .. (find(target, "?", 1, true) and "&" or "?") .. query
  end
  headers:replace(":path", target)
  headers:replace(":authority", model.host)

  local hint = hint_of(metadata)
  local body = h:body()
  if not body then return end
  local text = with_name(body, model, hint, sent)
  local length = text and body:setBytes(text) or body:length()
  h:headers():replace("content-length", tostring(length)) -- not `headers`: out of scope after a wait for the body
end

function envoy_on_request(h)
  -- Envoy would send the request on as it is after an error in here: with another model's name, path or host.
  local ok, why = pcall(prepare, h)
  if not ok then
    h:logErr("mom: attempt refused: " .. tostring(why))
    h:respond({[":status"] = "502"}, "the request could not be prepared for this model")
  end
end

-- For wrk: random requests from a file with a path per line. wrk ... -s random_paths.lua URL -- FILE SEED
function init(args)
   math.randomseed(tonumber(args[2]))
   requests = {}
   for path in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", path)
   end
end

function request()
   return requests[math.random(#requests)]
end

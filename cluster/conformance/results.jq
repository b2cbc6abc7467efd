# Reads the reports of a part ($part), and prints the result of each spec, and if the result differs from $exceptions.
# A spec that the filters exclude has no attempts. The name of a spec ends with its labels, for example [Slow]. A spec
# that exceeds the time limit has failed. A spec is interrupted if the program received a signal.
(reduce $exceptions[0][] as $exception ({}; .[$exception.spec] = $exception[$part])) as $expected
| map(.[]) as $reports
| {
    planned: ([$reports[].PreRunStats.SpecsThatWillRun] | add),
    specs: [
      $reports[].SpecReports[]
      | select(.LeafNodeType == "It" and .NumAttempts > 0)
      | (.LeafNodeText | gsub(" \\[[A-Za-z:]+\\]"; "")) as $spec
      | (if .State | IN("passed", "skipped", "interrupted") then .State else "failed" end) as $result
      | {
          spec: $spec,
          result: $result,
          unexpected: ($result != ($expected[$spec] // "passed")),
          seconds: (.RunTime / 1e9 | round),
          message: (.Failure.Message // null)
        }
    ]
  }

# The same model in plumber: Rscript mileage_plumber.R FOLDER PORT

arguments <- commandArgs(trailingOnly = TRUE)
source(file.path(arguments[[1]], "mileage.R"))

api <- plumber::pr()
api <- plumber::pr_set_docs(api, FALSE)
api <- plumber::pr_post(api, "/predict", function(wt, hp, qsec) {
  predict_fn(data.frame(wt = wt, hp = hp, qsec = qsec))[[1]]
}, serializer = plumber::serializer_unboxed_json(digits = NA))
plumber::pr_run(api, host = "127.0.0.1", port = as.integer(arguments[[2]]), quiet = TRUE)

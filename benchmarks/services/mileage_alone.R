# How long does predict_fn take for one row, in R alone? Rscript mileage_alone.R FOLDER; the median, in ms.

source(file.path(commandArgs(trailingOnly = TRUE)[[1]], "mileage.R"))

seconds <- vapply(seq_len(3000), function(i) {
  begun <- Sys.time()
  predict_fn(example)
  as.double(Sys.time()) - as.double(begun)
}, 0)
cat(median(seconds[-seq_len(500)]) * 1e3, "\n")

# The worker process for R: serves one script to the process that started it. Base R only.
#
# Frames come on one pipe and go on another; `frames.py` says what they are. What a script prints goes to the log.
#
# Rules:
# - Everything of ours lives in an environment below base R, so that no name of a script can take the place of ours.
# - The end of the pipe is the end of the process.

arguments <- as.list(commandArgs(trailingOnly = TRUE))
names(arguments) <- c("folder", "reads", "writes", "script", "wanted", "bundle")

host <- new.env(parent = baseenv())
host$arguments <- arguments
for (file in c("json.R", "channel.R", "results.R", "errors.R", "cleaning.R", "script.R", "studio.R", "serve.R")) {
  sys.source(file.path(arguments$folder, file), host)
}

(function(serve) {
  force(serve)
  # Scripts are evaluated here, and find nothing of ours.
  rm(list = ls(globalenv(), all.names = TRUE), envir = globalenv())
  invisible(serve())
})(host$serve)

# Runs code of the script's, and says what went wrong in the script's own terms.
#
# Rules:
# - Errors have R's message and the call that it names; the detail has the calls of the script, and where they stand.
# - Warnings go to the log, each text once: R would keep them until an end that never comes. One that came with an error
#   is part of its message: R warns that there is no such file, and then says that it cannot open the connection.

# Where the script is, and of what it has warned.
context <- new.env(parent = emptyenv())
context$logged <- -Inf
context$unlogged <- 0L
MOST_WARNINGS <- 100L
MOST_CALLS <- 30L
# How a script is read, a statement at its top level is run, and R tries: no calls of the script's.
OURS <- "^(eval\\(expression|parse\\(text = lines|tryCatchList\\(|tryCatchOne\\(|doTryCatch\\()"

# list(value = ), or list(trouble = ) with what `frames.Trouble` holds.
guarded <- function(run, code = "model_failed") {
  calls <- NULL
  script_ends()
  context$warning <- NULL
  tryCatch(
    withCallingHandlers(
      list(value = run()),
      warning = log_warning,
      error = function(error) calls <<- script_calls(sys.calls(), context$depth)
    ),
    error = function(error) list(trouble = trouble_of(error, calls, code))
  )
}

# What is called from now on, by the function that says so, is the script's.
script_begins <- function() context$depth <- sys.parent()

script_ends <- function() context$depth <- Inf

trouble_of <- function(error, calls, code) {
  # What is wrong with an answer is not in a line of the script.
  if (inherits(error, "bad_output")) return(list(message = conditionMessage(error), code = "bad_model_output"))
  # A message may be empty, or of several lines.
  lines <- c(strsplit(message_of(error), "\n", fixed = TRUE)[[1L]], "")
  call <- script_call(error)
  # R's own parser and `stop(call. = FALSE)` name no call.
  text <- if (is.null(call)) lines[1L] else paste0("Error in ", shown(call, 60L), ": ", trimws(lines[1L]))
  if (!is.null(call) && identical(call, context$warning$call)) text <- sprintf("%s (%s)", text, context$warning$text)
  detail <- paste(c(lines[-c(1L, length(lines))], calls), collapse = "\n")
  trouble <- list(message = text, detail = detail, code = code)
  if (inherits(error, "packageNotFoundError")) trouble <- c(missing_package(error$package), trouble["detail"])
  trouble
}

# The call that a condition names, if it is one of the script's.
script_call <- function(condition) {
  call <- conditionCall(condition)
  if (is.null(call) || grepl(OURS, shown(call, 60L))) NULL else call
}

message_of <- function(condition) utf8(paste(conditionMessage(condition), collapse = "\n"))

missing_package <- function(package) {
  list(
    message = sprintf("the R package '%s' is not installed", package),
    hint = sprintf(
      "list it in packages.txt beside the script, or install it: Rscript -e 'install.packages(\"%s\")'", package
    ),
    code = "runtime_unavailable"
  )
}

# The calls from `depth` on, without those that handle the error.
script_calls <- function(calls, depth) {
  calls <- calls[seq_along(calls) > depth]
  words <- vapply(calls, shown, "", 100L)
  handling <- grep("^(\\.handleSimpleError\\(|\\(function \\(error\\))", words)
  if (length(handling)) words <- words[seq_len(handling[[1L]] - 1L)]
  words <- paste0(vapply(calls[seq_along(words)], place, ""), words)
  # `stop` is told of by its place alone.
  words <- words[!grepl(OURS, words) & !startsWith(words, "stop(")]
  more <- length(words) - MOST_CALLS
  if (more > 0L) words <- c(words[seq_len(MOST_CALLS)], sprintf("... and %d more", more))
  if (length(words)) paste0("  ", words) else character()
}

# `model.R:12: `, where that is known.
place <- function(call) {
  source <- attr(call, "srcref")
  if (is.null(source)) "" else sprintf("%s:%d: ", attr(source, "srcfile")$filename, source[[1L]])
}

shown <- function(call, width) {
  text <- trimws(deparse(call, width.cutoff = 60L, nlines = 1L)[[1L]])
  if (nchar(text, "bytes") > width) paste0(strtrim(text, width), "...") else text
}

# The option `warn` counts: from 2 on R makes an error of what nobody muffles, and below 0 none is heard.
log_warning <- function(warning) {
  level <- getOption("warn")
  if (level >= 2L) return()
  text <- message_of(warning)
  call <- script_call(warning)
  context$warning <- list(call = call, text = text)
  if (level >= 0L && length(context$warnings) < MOST_WARNINGS && !(text %in% context$warnings)) {
    context$warnings <- c(context$warnings, text)
    say("warning%s: %s", if (is.null(call)) "" else paste(" in", shown(call, 60L)), text)
  }
  tryInvokeRestart("muffleWarning")
}

# One failure a second is enough to know of it.
log_failure <- function(text) {
  now <- proc.time()[["elapsed"]]
  if (now - context$logged < 1) {
    context$unlogged <- context$unlogged + 1L
    return()
  }
  before <- if (context$unlogged > 0L) sprintf(" (and %d more failures before)", context$unlogged) else ""
  say("%s%s", text, before)
  context$logged <- now
  context$unlogged <- 0L
}

# A line for the log.
say <- function(...) cat(sprintf("%s: %s\n", basename(arguments$script), sprintf(...)), file = stderr())

# The life of the worker: HELLO, SETUP, READY, and then a RESULT for each RUN.

serve <- function() {
  options(mc.cores = as.integer(Sys.getenv("MC_CORES", "1")), device = function(...) grDevices::pdf(NULL))
  open_channel()
  loaded <- guarded(load_script, "model_load_error")
  if (!is.null(loaded$trouble)) return(send_fatal(loaded$trouble))
  service <- loaded$value
  send_json(HELLO, 0L, service$about)
  # What it says is in the environment as well.
  if (is.null(receive())) return()
  ready <- guarded(service$setup, "model_load_error")
  if (!is.null(ready$trouble)) return(send_fatal(ready$trouble))
  remember()
  send_json(READY, 0L, list(examples = ready$value))
  repeat {
    frame <- receive()
    if (is.null(frame)) break
    if (frame$kind == RUN) answer(service$run, frame)
  }
}

# The answer goes first: nobody waits for the cleaning.
answer <- function(run, frame) {
  tables <- unserialize(frame$body)
  outcome <- guarded(function() lapply(tables, run))
  if (is.null(outcome$trouble)) {
    send(RESULT, frame$call, serialize(outcome$value, NULL, xdr = FALSE, version = 2L))
  } else {
    send_json(FAILED, frame$call, for_clients(outcome$trouble))
  }
  clean()
}

# The script's own words are for the log, and for clients in debug mode.
for_clients <- function(trouble) {
  text <- paste(c(trouble$message, if (length(trouble$detail) && nzchar(trouble$detail)) trouble$detail), collapse = "\n")
  log_failure(text)
  if (trouble$code != "model_failed") return(trouble)
  list(message = "the code raised an error", detail = text, code = trouble$code)
}

send_fatal <- function(trouble) {
  # A parser names the place itself; else it is the statement at the top level that was evaluated last.
  at <- if (is.null(context$line)) "" else sprintf(":%d", context$line)
  prefix <- paste0(basename(arguments$script), at, ": ")
  if (!startsWith(trouble$message, basename(arguments$script))) trouble$message <- paste0(prefix, trouble$message)
  send_json(FATAL, 0L, trouble)
}

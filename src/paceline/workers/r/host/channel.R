# Frames on two pipes: a head of four little-endian 32-bit integers (magic, kind, call, length), and a body.
#
# Rules:
# - `fifo()`, because it hands over what has come; `file()` would wait for a full buffer.
# - A pipe gives at most what is in it: large bodies come in pieces.
# - A frame is written at once.
# - A script may close every connection there is. The descriptors themselves stay open, and are opened again.

MAGIC <- 0x4C454350L
SETUP <- 1L
RUN <- 2L
HELLO <- 16L
READY <- 17L
FATAL <- 18L
RESULT <- 19L
FAILED <- 20L

channel <- new.env(parent = emptyenv())

open_channel <- function() {
  channel$reads <- fifo(paste0("/dev/fd/", arguments$reads), "rb", blocking = TRUE)
  channel$writes <- fifo(paste0("/dev/fd/", arguments$writes), "wb", blocking = TRUE)
  channel$numbers <- c(channel$reads, channel$writes)
  channel$ids <- ids(channel$numbers)
}

# A connection that has been closed gives its number to the next one, but not its identity.
check_channel <- function() {
  numbers <- channel$numbers
  if (anyNA(match(numbers, getAllConnections())) || !identical(ids(numbers), channel$ids)) open_channel()
}

ids <- function(numbers) lapply(numbers, function(number) attr(getConnection(number), "conn_id"))

receive <- function() {
  head <- readBin(channel$reads, "integer", 4L, endian = "little")
  if (length(head) < 4L) return(NULL)
  list(kind = head[[2L]], call = head[[3L]], body = receive_bytes(head[[4L]]))
}

receive_bytes <- function(length) {
  piece <- readBin(channel$reads, "raw", length)
  if (length(piece) == length) return(piece)
  pieces <- list(piece)
  missing <- length - length(piece)
  while (missing > 0) {
    piece <- readBin(channel$reads, "raw", missing)
    if (!length(piece)) quit("no")
    pieces[[length(pieces) + 1L]] <- piece
    missing <- missing - length(piece)
  }
  do.call(c, pieces)
}

send <- function(kind, call, body) {
  check_channel()
  head <- writeBin(c(MAGIC, kind, call, length(body)), raw(), endian = "little")
  writeBin(c(head, body), channel$writes)
}

send_json <- function(kind, call, document) send(kind, call, charToRaw(to_json(document)))

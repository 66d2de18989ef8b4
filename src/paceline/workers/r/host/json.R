# Writes what the server wants to know of a script as JSON.
#
# Rules:
# - A vector of length 1 is the bare value, a list with names an object, any other list an array.
# - Only for small things: predictions travel otherwise (`results.R`).

to_json <- function(value) {
  if (is.null(value)) return("null")
  if (is.list(value)) {
    parts <- vapply(value, to_json, "")
    if (is.null(names(value))) return(paste0("[", paste(parts, collapse = ","), "]"))
    return(paste0("{", paste(vapply(names(value), json_text, ""), parts, sep = ":", collapse = ","), "}"))
  }
  parts <- vapply(seq_along(value), function(i) json_scalar(value[[i]]), "")
  if (length(parts) == 1L) parts else paste0("[", paste(parts, collapse = ","), "]")
}

json_scalar <- function(value) {
  if (is.na(value) || (is.double(value) && !is.finite(value))) return("null")
  if (is.logical(value)) return(if (value) "true" else "false")
  if (is.numeric(value)) return(sprintf("%.17g", value))
  json_text(value)
}

json_text <- function(text) {
  text <- gsub("\"", "\\\"", gsub("\\", "\\\\", utf8(text), fixed = TRUE), fixed = TRUE)
  if (grepl("[\001-\037]", text, useBytes = TRUE)) {
    for (code in 1:31) text <- gsub(intToUtf8(code), sprintf("\\u%04x", code), text, fixed = TRUE)
  }
  paste0("\"", text, "\"")
}

# In UTF-8, whatever bytes it holds.
utf8 <- function(text) {
  text <- enc2utf8(as.character(text))
  if (validUTF8(text)) text else iconv(text, "UTF-8", "UTF-8", sub = "byte")
}

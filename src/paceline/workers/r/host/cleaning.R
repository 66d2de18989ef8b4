# What a call leaves behind, and what becomes of it.
#
# Rules:
# - Every call finds the global environment as it was when the script was initialised: what a call creates is removed,
#   what it assigned anew has its old value. That goes for the seed of random numbers, too.
# - Options, the working directory, diverted output and graphics are put back; a package that a call loads keeps the
#   options that it has set.
# - What is attached stays: this is how a script keeps things. Attached under a name that is there already it would
#   pile up, call by call: it is detached again, and the log says so once. So is what comes after too many names.

kept <- new.env(parent = emptyenv())
MOST_ATTACHED <- 16L

# From now on calls find what is there now.
remember <- function() {
  kept$names <- names(globalenv())
  kept$variables <- variables(kept$names)
  remember_options()
  kept$folder <- getwd()
  kept$search <- search()
  kept$attached <- 0L
}

clean <- function() {
  restore_variables()
  restore_options()
  if (!identical(search(), kept$search)) check_search()
  if (!identical(getwd(), kept$folder)) setwd(kept$folder)
  while (sink.number() > 0L) sink()
  if (sink.number("message") != 2L) sink(type = "message")
  if (length(.Devices) > 1L) grDevices::graphics.off()
}

variables <- function(names) {
  # Neither of these can be assigned: an active one is a function, a locked one is as it was.
  fixed <- vapply(names, function(name) bindingIsActive(name, globalenv()) || bindingIsLocked(name, globalenv()), NA)
  mget(names[!fixed], envir = globalenv())
}

restore_variables <- function() {
  now <- names(globalenv())
  new <- now[is.na(match(now, kept$names))]
  if (length(new)) rm(list = new, envir = globalenv())
  list2env(kept$variables, globalenv())
}

remember_options <- function() {
  kept$options <- options()
  # To look costs a tenth of setting them all.
  kept$option_values <- as.list(.Options)
  kept$namespaces <- length(loadedNamespaces())
}

restore_options <- function() {
  if (identical(as.list(.Options), kept$option_values)) return()
  new <- setdiff(names(options()), names(kept$options))
  has_loaded <- length(loadedNamespaces()) > kept$namespaces
  options(c(kept$options, if (!has_loaded) structure(vector("list", length(new)), names = new)))
  remember_options()
}

check_search <- function() {
  # `attach` puts the new one first.
  for (name in unique(search()[duplicated(search())])) {
    while (sum(search() == name) > 1L) detach(match(name, search()), character.only = TRUE)
    say_once("'%s' is attached by every call: it has been detached again. %s", name,
             sprintf("Attach it once: if (!(\"%s\" %%in%% search())) attach(...)", name))
  }
  new <- grep("^package:", setdiff(search(), kept$search), invert = TRUE, value = TRUE)
  if (kept$attached + length(new) > MOST_ATTACHED) {
    for (name in new) detach(match(name, search()), character.only = TRUE)
    say_once("calls attach ever new names, such as '%s': they are detached again", new[[1L]])
  } else {
    kept$attached <- kept$attached + length(new)
  }
  kept$search <- search()
}

say_once <- function(...) {
  if (is.null(kept$said)) say(...)
  kept$said <- TRUE
}

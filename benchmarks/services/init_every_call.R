# The example that initialises once, initialising in every call. $EXAMPLES is the folder of the examples.

source(file.path(Sys.getenv("EXAMPLES"), "init_once", "model.R"), local = TRUE)
prepare <- init
answer <- predict_fn
rm(init, example)

predict_fn <- function(df) answer(df, prepare())

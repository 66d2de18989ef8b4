# The example that initialises once, initialising in the first call. $EXAMPLES is the folder of the examples.
# What is attached outlives the call.

source(file.path(Sys.getenv("EXAMPLES"), "init_once", "model.R"), local = TRUE)
prepare <- init
answer <- predict_fn
rm(init, example)

predict_fn <- function(df) {
  if (!"ways" %in% search()) attach(prepare(), name = "ways")
  answer(df, as.environment("ways"))
}

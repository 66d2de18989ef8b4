# An "Execute R Script" module of Studio, unchanged: which kind of iris is each flower of a table?
#
# paceline serve examples/r_studio/flowers.R

# The script is evaluated by every call, and its variables are gone at the end. What is attached stays, so what takes
# long is done once, and attached.
if (!("my_env" %in% search())) {
  my_env <- new.env()
  my_env$centres <- aggregate(. ~ Species, iris, mean)
  attach(my_env)
}

flowers <- maml.mapInputPort(1)

measures <- c("Sepal.Length", "Sepal.Width", "Petal.Length", "Petal.Width")
distance <- function(centre) colSums((t(flowers[measures]) - unlist(centre))^2)
distances <- sapply(seq_len(nrow(centres)), function(kind) distance(centres[kind, measures]))
dim(distances) <- c(nrow(flowers), nrow(centres))

scored <- cbind(flowers, Species = centres$Species[max.col(-distances)])
maml.mapOutputPort("scored")

# The only entry. `make run` trains, `make test` checks everything; both install what they need.

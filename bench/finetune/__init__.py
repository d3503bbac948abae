"""Fine-tuning: one recipe, one process a training run. `data` makes the rows, `lora` says what is trained, `train` trains."""

"""Mirror of run directories at Weights & Biases: records, client, tracker and saved views."""

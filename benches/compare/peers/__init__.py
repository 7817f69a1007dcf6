"""The contenders: each function starts one arrangement and says where its port is."""

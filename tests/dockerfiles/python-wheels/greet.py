def words(who):
    return f"hello {who}"
